package rows_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"tallyman/internal/sandbox/sandboxtest"
	"tallyman/schema"
)

// fieldTuple is a tuple of the manifest of pairs with that field.
func fieldTuple(n int, field []byte) []byte {
	tuple := binary.BigEndian.AppendUint64([]byte{0, 3, 0, 0, 0, 8}, uint64(n))
	tuple = append(binary.BigEndian.AppendUint32(tuple, uint32(len(field))), field...)
	return append(append(tuple, 0, 0, 0, 16), batchID[:]...)
}

// What walks, however odd, PostgreSQL takes as the number or the array that it
// says it is: nothing is rounded, cut or refused.
func TestWhatWalksIsTaken(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dsns := map[string]string{}
	for _, version := range sandboxtest.Versions() {
		dsns[version] = sandboxtest.Postgres(t, version)
	}
	for typ, read := range map[schema.Type]func([]byte) string{
		"decimal(9,4)": readNumeric, "decimal(4,4)": readNumeric, "decimal(12,0)": readNumeric,
		"int16[]": readArray, "decimal(9,4)[]": readArray,
	} {
		codec := newCodec(t, pairs(typ))
		facts, _ := typ.Facts()
		var tuples []byte
		var want []string
		refused := 0
		for len(want) < 500 || refused < 500 {
			field := randomNumeric(random)
			if facts.Array {
				field = randomArray(random, facts)
			}
			tuple := fieldTuple(len(want), field)
			if codec.Walk(tuple, 1, batchID) != nil {
				refused++
				continue
			}
			tuples, want = append(tuples, tuple...), append(want, read(field))
		}
		for _, version := range sandboxtest.Versions() {
			conn, err := copyIn(t.Context(), t, dsns[version], typ, tuples)
			if err != nil {
				t.Fatalf("%s on %s: %v", typ, version, err)
			}
			printed, err := conn.Query(t.Context(), "SELECT v::text FROM t ORDER BY n")
			if err != nil {
				t.Fatal(err)
			}
			got, err := pgx.CollectRows(printed, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(want) {
				t.Fatalf("%s on %s: %d rows, want %d", typ, version, len(got), len(want))
			}
			for i := range got {
				if plain(got[i]) != plain(want[i]) {
					t.Fatalf("%s on %s: row %d is %s, want %s", typ, version, i, got[i], want[i])
				}
			}
		}
	}
}

// plain spells each number of a text in one way.
func plain(text string) string {
	numbers := strings.Split(strings.Trim(text, "{}"), ",")
	for i, n := range numbers {
		if r, ok := new(big.Rat).SetString(n); ok {
			numbers[i] = r.String()
		}
	}
	return strings.Join(numbers, ",")
}

// randomNumeric is a field that often is a numeric.
func randomNumeric(random *rand.Rand) []byte {
	count := random.IntN(4)
	field := binary.BigEndian.AppendUint16(nil, uint16(count))
	field = binary.BigEndian.AppendUint16(field, uint16(random.IntN(6)-3))
	field = binary.BigEndian.AppendUint16(field, []uint16{0, 0, 0x4000, 0x4000, uint16(random.Uint32())}[random.IntN(5)])
	field = binary.BigEndian.AppendUint16(field, []uint16{0, 1, 2, 4, 4, 4, 9, 0x3fff, uint16(random.Uint32())}[random.IntN(9)])
	for range count {
		field = binary.BigEndian.AppendUint16(field, []uint16{0, 1, 10, 1000, 9000, 9999, uint16(random.Uint32())}[random.IntN(7)])
	}
	return field[:len(field)-random.IntN(30)/29]
}

// readNumeric is the number that a well-formed numeric is.
func readNumeric(field []byte) string {
	sum := new(big.Rat)
	if len(bytes.Trim(field[8:], "\x00")) == 0 {
		return "0" // of any weight
	}
	base := new(big.Rat).SetInt64(1)
	weight := int(int16(binary.BigEndian.Uint16(field[2:])))
	for range max(weight, -weight) {
		base.Mul(base, big.NewRat(10_000, 1))
	}
	if weight < 0 {
		base.Inv(base)
	}
	for digits := field[8:]; len(digits) > 0; digits = digits[2:] {
		sum.Add(sum, new(big.Rat).Mul(base, big.NewRat(int64(binary.BigEndian.Uint16(digits)), 1)))
		base.Mul(base, big.NewRat(1, 10_000))
	}
	if field[4] != 0 {
		sum.Neg(sum)
	}
	return sum.String()
}

// randomArray is a field that often is an array of the type.
func randomArray(random *rand.Rand, facts schema.Facts) []byte {
	oid := map[schema.Type]uint32{schema.Int16: 21, schema.Decimal: 1700}[facts.Name]
	count := random.IntN(4)
	field := binary.BigEndian.AppendUint32(nil, uint32(min(count, 1)))
	field = binary.BigEndian.AppendUint32(field, uint32(random.IntN(9)/4))
	field = binary.BigEndian.AppendUint32(field, oid+uint32(random.IntN(9)/8))
	if count > 0 {
		field = binary.BigEndian.AppendUint32(field, uint32(count+random.IntN(9)/8))
		field = binary.BigEndian.AppendUint32(field, 1-uint32(random.IntN(9)/8))
	}
	for range count {
		element := randomNumeric(random)
		if facts.Name == schema.Int16 {
			element = binary.BigEndian.AppendUint16(nil, uint16(random.Uint32()))
		}
		if random.IntN(4) == 0 {
			field = binary.BigEndian.AppendUint32(field, 0xffffffff)
			continue
		}
		field = append(binary.BigEndian.AppendUint32(field, uint32(len(element)+random.IntN(30)/29)), element...)
	}
	return field
}

// readArray is what PostgreSQL prints of a well-formed array of int2 or numeric.
func readArray(field []byte) string {
	var elements []string
	if len(field) > 20 {
		for rest := field[20:]; len(rest) > 0; {
			length := int32(binary.BigEndian.Uint32(rest))
			rest = rest[4:]
			switch {
			case length < 0:
				elements = append(elements, "NULL")
				continue
			case length == 2:
				elements = append(elements, fmt.Sprint(int16(binary.BigEndian.Uint16(rest))))
			default:
				elements = append(elements, readNumeric(rest[:length]))
			}
			rest = rest[length:]
		}
	}
	return "{" + strings.Join(elements, ",") + "}"
}

// Why Walk looks inside: PostgreSQL rounds and cuts numbers without a word, and
// refuses an array of the wrong elements by an error that speaks of the
// statement, for which a dataset stops instead of the batch going to quarantine.
func TestWhyWalkLooksInside(t *testing.T) {
	t.Parallel()
	dsn := sandboxtest.Postgres(t, "18")
	for _, tc := range []struct {
		typ         schema.Type
		field, want string
	}{
		{"decimal(3,2)", "\x00\x01\xff\xff\x00\x00\x00\x04\x00\x4b", "0.01"}, // 0.0075
		{"decimal(3,2)", "\x00\x01\xff\xff\x00\x00\x00\x00\x23\x28", "0.00"}, // 0.9
		{"decimal(3,2)", "\x00\x00\x00\x00\xc0\x00\x00\x00", "NaN"},
		{"int16[]", "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x17\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x02\x00\x05", "42804"},
		{"int16[]", "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x15\x00\x00\x00\x01\x00\x00\x00\x07\x00\x00\x00\x02\x00\x05", "[7:7]={5}"},
	} {
		tuple := fieldTuple(1, []byte(tc.field))
		if newCodec(t, pairs(tc.typ)).Walk(tuple, 1, batchID) == nil {
			t.Errorf("%s %x walks", tc.typ, tc.field)
		}
		conn, err := copyIn(t.Context(), t, dsn, tc.typ, tuple)
		var got string
		if refusal := (*pgconn.PgError)(nil); errors.As(err, &refusal) {
			got = refusal.Code
		} else if err := conn.QueryRow(context.Background(), "SELECT v::text FROM t").Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != tc.want {
			t.Errorf("the premise is gone: %s %x became %s, want %s", tc.typ, tc.field, got, tc.want)
		}
	}
}
