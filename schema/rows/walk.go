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
// last byte, and that every tuple's _batch_id is id. It does not look inside
// values: what a warehouse thinks of those, it says itself. The error is *Error.
func (c *Codec) Walk(value []byte, n int, id uuid.UUID) error {
	rest := value
	for row := 1; row <= n; row++ {
		if len(rest) < 2 {
			return &Error{Row: row, Detail: fmt.Sprintf("the value ends after %d of %d rows", row-1, n)}
		}
		if fields := int(binary.BigEndian.Uint16(rest)); fields != c.fields {
			return &Error{Row: row, Detail: fmt.Sprintf("%d fields, want %d", fields, c.fields)}
		}
		rest = rest[2:]
		for i, size := range c.sizes {
			if len(rest) < 4 {
				return c.walkError(row, i, "the value ends before the field's length")
			}
			length := int32(binary.BigEndian.Uint32(rest))
			rest = rest[4:]
			if length < 0 {
				if detail := c.nullFault(i, length); detail != "" {
					return c.walkError(row, i, detail)
				}
				continue
			}
			if length != size && size != schema.Variable {
				return c.walkError(row, i, fmt.Sprintf("%d bytes, want %d", length, size))
			}
			if int(length) > len(rest) {
				return c.walkError(row, i, fmt.Sprintf("%d bytes, but only %d are left in the value", length, len(rest)))
			}
			if i == len(c.columns) && !bytes.Equal(rest[:length], id[:]) {
				return c.walkError(row, i, fmt.Sprintf("the id %s is not the batch's, %s", uuid.UUID(rest[:length]), id))
			}
			rest = rest[length:]
		}
	}
	if len(rest) > 0 {
		return &Error{Detail: fmt.Sprintf("%d bytes follow the last of %d rows", len(rest), n)}
	}
	return nil
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
