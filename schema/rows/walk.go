package rows

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"

	"tallyman/schema"
)

// Walk checks a native value: field counts, lengths (by type, where a type
// has one), no NULL in a required column, exactly n tuples that end at the
// last byte, and that every tuple's _batch_id is id. It looks inside decimals
// and arrays, of which a warehouse would bend some without a word. What it
// thinks of other values, it says itself. The error is *Error.
func (c *Codec) Walk(value []byte, n int, id uuid.UUID) error {
	rest := value
	for row := 1; row <= n; row++ {
		if len(rest) < 2 {
			return &Error{Row: row, Detail: fmt.Sprintf("the value ends after %d of %d rows", row-1, n)}
		}
		var err error
		if rest, err = c.pass(rest, row, id); err != nil {
			return err
		}
	}
	if len(rest) > 0 {
		return &Error{Detail: fmt.Sprintf("%d bytes follow the last of %d rows", len(rest), n)}
	}
	return nil
}

// Ends checks a native value as Walk does, of as many tuples as it has, and
// appends to dst where in the value each ends.
func (c *Codec) Ends(dst []int, value []byte, id uuid.UUID) ([]int, error) {
	rest := value
	for row := 1; len(rest) > 0; row++ {
		if len(rest) < 2 {
			return dst, &Error{Row: row, Detail: "the value ends before the number of fields"}
		}
		var err error
		if rest, err = c.pass(rest, row, id); err != nil {
			return dst, err
		}
		dst = append(dst, len(value)-len(rest))
	}
	return dst, nil
}

// pass checks the tuple that rest begins with, and returns what follows it.
// rest has at least the two bytes of its number of fields.
func (c *Codec) pass(rest []byte, row int, id uuid.UUID) ([]byte, error) {
	if fields := int(binary.BigEndian.Uint16(rest)); fields != c.fields {
		return nil, &Error{Row: row, Detail: fmt.Sprintf("%d fields, want %d", fields, c.fields)}
	}
	rest = rest[2:]
	for i, size := range c.sizes {
		if len(rest) < 4 {
			return nil, c.walkError(row, i, "the value ends before the field's length")
		}
		length := int32(binary.BigEndian.Uint32(rest))
		rest = rest[4:]
		if length < 0 {
			if detail := c.nullFault(i, length); detail != "" {
				return nil, c.walkError(row, i, detail)
			}
			continue
		}
		if length != size && size != schema.Variable {
			return nil, c.walkError(row, i, fmt.Sprintf("%d bytes, want %d", length, size))
		}
		if int(length) > len(rest) {
			return nil, c.walkError(row, i, fmt.Sprintf("%d bytes, but only %d are left in the value", length, len(rest)))
		}
		if i == len(c.columns) && !bytes.Equal(rest[:length], id[:]) {
			return nil, c.walkError(row, i, fmt.Sprintf("the id %s is not the batch's, %s", uuid.UUID(rest[:length]), id))
		}
		if size == schema.Variable && c.columns[i].fault != nil {
			if detail := c.columns[i].fault(rest[:length]); detail != "" {
				return nil, c.walkError(row, i, detail)
			}
		}
		rest = rest[length:]
	}
	return rest, nil
}

// nullFault returns what is wrong with a negative length of field i, or "".
func (c *Codec) nullFault(i int, length int32) string {
	switch {
	case length != -1:
		return fmt.Sprintf("a length of %d", length)
	case i == len(c.columns) || !c.columns[i].Nullable:
		return errRequired.Error()
	}
	return ""
}

func (c *Codec) walkError(row, field int, detail string) error {
	return &Error{Row: row, Column: c.names[field], Detail: detail}
}
