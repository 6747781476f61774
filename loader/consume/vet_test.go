package consume

import "testing"

// Nothing covers an answer's list of aborted transactions by a checksum: two
// answers that are hurt in different places must not confirm one another.
func TestTwoLiesAboutAborts(t *testing.T) {
	t.Parallel()
	const transactional = 1 << 4
	answer := func(list ...aborted) *fetched {
		return &fetched{
			transactions: list,
			batches:      []rawBatch{{base: 10, last: 12, producer: 7, attributes: transactional, count: 3}},
		}
	}
	truth := aborted{producer: 7, first: 10}
	var told hearsay
	for i, p := range []*fetched{
		answer(aborted{producer: 7 + 1<<20, first: 10}),
		answer(aborted{producer: 7, first: 10 + 1<<40}),
		answer(aborted{producer: 7 + 1<<9, first: 10}),
		answer(truth),
	} {
		var steps []step
		if steps, told, _ = vet(p, 10, told); len(steps) != 0 {
			t.Fatalf("answer %d was believed: dropped %t", i, steps[0].drop)
		}
	}
	if steps, _, _ := vet(answer(truth), 10, told); len(steps) != 1 || !steps[0].drop {
		t.Errorf("the truth, told twice, was not believed: %+v", steps)
	}
}
