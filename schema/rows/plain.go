package rows

// isPlain reports whether text is one JSON value of the plainest kind, as most
// are: ASCII without escapes or control characters, few names in an object, all
// different, and few levels. It is a fraction of a general reader's work; what it
// does not know is for that to judge, so false says nothing about the text.
func isPlain(text []byte) bool {
	const levels = 8
	return plainValue(text, 0, levels) == len(text)
}

// Each of these returns where in text ends what begins at i, or -1: it is not plain.

func plainValue(text []byte, i, levels int) int {
	if i >= len(text) || levels == 0 {
		return -1
	}
	switch c := text[i]; {
	case c == '"':
		return plainString(text, i)
	case c == '{':
		return plainObject(text, i, levels)
	case c == '[':
		return plainArray(text, i, levels)
	case c == '-' || isDigit(c):
		return plainNumber(text, i)
	case c == 't':
		return plainWord(text, i, "true")
	case c == 'f':
		return plainWord(text, i, "false")
	case c == 'n':
		return plainWord(text, i, "null")
	}
	return -1
}

// plainNames bounds the names of an object: each is compared with all before it.
const plainNames = 8

func plainObject(text []byte, i, levels int) int {
	var names [plainNames][]byte
	i = plainBlanks(text, i+1)
	if i < len(text) && text[i] == '}' {
		return i + 1
	}
	for n := range names {
		begin := i
		if i = plainString(text, i); i < 0 {
			return -1
		}
		names[n] = text[begin:i]
		for _, other := range names[:n] {
			if string(other) == string(names[n]) {
				return -1
			}
		}
		if i = plainBlanks(text, i); i >= len(text) || text[i] != ':' {
			return -1
		}
		var more bool
		if i, more = plainMember(text, plainBlanks(text, i+1), levels, '}'); i < 0 || !more {
			return i
		}
	}
	return -1
}

func plainArray(text []byte, i, levels int) int {
	i = plainBlanks(text, i+1)
	if i < len(text) && text[i] == ']' {
		return i + 1
	}
	for {
		var more bool
		if i, more = plainMember(text, i, levels, ']'); i < 0 || !more {
			return i
		}
	}
}

// plainMember passes a value and the comma or the end after it. more says that
// it was a comma; then the result is where the next one begins.
func plainMember(text []byte, i, levels int, end byte) (next int, more bool) {
	if i = plainValue(text, i, levels-1); i < 0 {
		return -1, false
	}
	i = plainBlanks(text, i)
	switch {
	case i < len(text) && text[i] == ',':
		return plainBlanks(text, i+1), true
	case i < len(text) && text[i] == end:
		return i + 1, false
	}
	return -1, false
}

func plainString(text []byte, i int) int {
	if i >= len(text) || text[i] != '"' {
		return -1
	}
	for i++; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return i + 1
		case c < ' ' || c == '\\' || c >= 0x80:
			return -1
		}
	}
	return -1
}

func plainNumber(text []byte, i int) int {
	if text[i] == '-' {
		i++
	}
	whole := i
	if i = plainDigits(text, i); i == whole || text[whole] == '0' && i > whole+1 {
		return -1
	}
	if i < len(text) && text[i] == '.' {
		part := i + 1
		if i = plainDigits(text, part); i == part {
			return -1
		}
	}
	if i < len(text) && (text[i] == 'e' || text[i] == 'E') {
		i++
		if i < len(text) && (text[i] == '+' || text[i] == '-') {
			i++
		}
		power := i
		if i = plainDigits(text, power); i == power {
			return -1
		}
	}
	return i
}

func plainWord(text []byte, i int, word string) int {
	if len(text)-i >= len(word) && string(text[i:i+len(word)]) == word {
		return i + len(word)
	}
	return -1
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func plainDigits(text []byte, i int) int {
	for i < len(text) && isDigit(text[i]) {
		i++
	}
	return i
}

func plainBlanks(text []byte, i int) int {
	for i < len(text) && text[i] == ' ' {
		i++
	}
	return i
}
