package schema

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Source is a producer that a dataset is expected to get batches from. How far
// the dataset is complete says nothing as long as one of these was never heard of.
type Source struct {
	Name string
	// Continuous says that the source is meant to be running always, so that the
	// dataset is complete only up to where it last was, also if it has ended well.
	Continuous bool
}

// MaxSource bounds a source's name, in bytes.
const MaxSource = 255

// sourceFaults returns what is wrong with the expected sources.
func (m Manifest) sourceFaults() Faults {
	var fs Faults
	first := make(map[string]int, len(m.Sources))
	for i, s := range m.Sources {
		path := fmt.Sprintf("sources[%d].name", i)
		fault := func(format string, args ...any) {
			fs = append(fs, Fault{Path: path, Detail: fmt.Sprintf(format, args...)})
		}
		earlier, seen := first[s.Name]
		switch {
		case s.Name == "":
			fault("is required")
		case len(s.Name) > MaxSource:
			fault("the name %s has %d bytes, at most %d are possible", quote(s.Name), len(s.Name), MaxSource)
		case !utf8.ValidString(s.Name) || strings.ContainsFunc(s.Name, unicode.IsControl):
			fault("the name %s is not UTF-8 without control characters", quote(s.Name))
		case seen:
			fault("source %s is already sources[%d]", quote(s.Name), earlier)
		default:
			first[s.Name] = i
		}
	}
	return fs
}

// sameSources says that two manifests expect the same, in whatever order.
func sameSources(a, b []Source) bool {
	byName := func(x, y Source) int { return cmp.Compare(x.Name, y.Name) }
	return slices.Equal(slices.SortedFunc(slices.Values(a), byName), slices.SortedFunc(slices.Values(b), byName))
}
