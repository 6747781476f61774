package replay

import (
	"tallyman/schema/batch"
	"tallyman/source/journal"
)

// covered returns the numbers that a receipt shows as accounted for.
func covered(r *batch.Receipt) []journal.Range {
	if r.Considered == 0 {
		return nil
	}
	return without([]journal.Range{{First: 1, Last: r.Considered}}, r.Missing)
}

// without returns what is in a and not in b. Both are in order and apart.
func without(a, b []journal.Range) []journal.Range {
	var left []journal.Range
	for _, r := range a {
		first := r.First
		done := false
		for _, m := range b {
			if m.Last < first || m.First > r.Last {
				continue
			}
			if m.First > first {
				left = append(left, journal.Range{First: first, Last: m.First - 1})
			}
			if m.Last >= r.Last {
				done = true
				break
			}
			first = m.Last + 1
		}
		if !done {
			left = append(left, journal.Range{First: first, Last: r.Last})
		}
	}
	return left
}

// both returns what is in a and in b. Both are in order and apart.
func both(a, b []journal.Range) []journal.Range {
	var common []journal.Range
	for i, k := 0, 0; i < len(a) && k < len(b); {
		first, last := max(a[i].First, b[k].First), min(a[i].Last, b[k].Last)
		if first <= last {
			common = append(common, journal.Range{First: first, Last: last})
		}
		if a[i].Last < b[k].Last {
			i++
		} else {
			k++
		}
	}
	return common
}

// count returns how many numbers ranges hold.
func count(ranges []journal.Range) (n uint64) {
	for _, r := range ranges {
		n += r.Last - r.First + 1
	}
	return n
}
