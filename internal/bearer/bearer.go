// Package bearer lets clients in that send one of the tokens of a file.
package bearer

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"os"
	"strings"
)

// Tokens are those that let clients in, without the tokens themselves.
type Tokens []token

// token is one that lets a client in.
type token struct {
	client string
	digest [sha256.Size]byte
}

// Shortest is what a guess at a token is up against, in bytes.
const Shortest = 16

// Read reads a file with "name token" on each line; blank lines, and those that
// begin with #, are passed over. Errors never show a token.
func Read(name string) (Tokens, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	var all Tokens
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) != 2 {
			return nil, fmt.Errorf("read tokens: %s:%d: want a name and a token, with a blank between them", name, number)
		}
		if len(fields[1]) < Shortest {
			return nil, fmt.Errorf("read tokens: %s:%d: the token of %s has fewer than %d characters", name, number, fields[0], Shortest)
		}
		all = append(all, token{client: fields[0], digest: sha256.Sum256([]byte(fields[1]))})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("read tokens: %s has none", name)
	}
	return all, nil
}

// Given returns the token that a request came with; false: it came with none.
func Given(r *http.Request) (string, bool) {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.TrimSpace(given), strings.EqualFold(scheme, "Bearer")
}

// Client returns whose token it is. Digests are compared, so that neither time nor
// length says how much of a guess is right; and all of them, so that nothing says
// which.
func (ts Tokens) Client(given string) (client string, ok bool) {
	digest := sha256.Sum256([]byte(given))
	for _, t := range ts {
		if subtle.ConstantTimeCompare(digest[:], t.digest[:]) == 1 {
			client, ok = t.client, true
		}
	}
	return client, ok
}
