// Package infer writes a first manifest for a file: it looks at the values of
// CSV or NDJSON and finds, for each column, the narrowest type that holds all
// of them without changing any.
//
// The manifest is one that a push of the same file goes through with. That is
// so by construction: a type stays a candidate of a column only as long as the
// codec of package rows, which a push uses, takes every value. On top of it a
// candidate refuses values that its type would not give back as they were
// written: 00123 is text, and so is +49 170; a time without a zone is a
// timestamp, not an instant; a number with a point is a decimal, and float64 only
// where it has an exponent or is NaN, and at most 15 digits. Columns keep
// the names that the file gives them, because a push finds them by these names.
//
// What only a person can know is a comment in the manifest: whether a column
// that was never empty may be, what a key could be, why a column is text.
// Every column is nullable, so that the next file is not refused for a first
// empty value.
//
// The memory is bounded: a column remembers its candidates and at most two
// values, and all columns together so many hashes, to see whether values repeat.
package infer
