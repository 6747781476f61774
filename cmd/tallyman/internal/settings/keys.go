package settings

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// checkKeys names every key of a file that is no setting, with its line, and
// notes the line of every one that is. It says whether the file is worth reading.
func (l *loader) checkKeys(name string, text []byte) bool {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		l.fault("%s: %v", name, err)
		return false
	}
	if len(doc.Content) == 0 {
		return false
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		l.fault("%s:%d: expected keys and values, as in \"kafka:\"", name, root.Line)
		return false
	}
	before := len(l.faults)
	l.checkMapping(name, "", root)
	return len(l.faults) == before
}

func (l *loader) checkMapping(name, prefix string, m *yaml.Node) {
	for i := 0; i+1 < len(m.Content); i += 2 {
		k, v := m.Content[i], m.Content[i+1]
		key, where := prefix+k.Value, fmt.Sprintf("%s:%d", name, k.Line)
		_, known := l.byKey[key]
		switch {
		case strings.Contains(k.Value, "."):
			l.fault("%s: unknown key %q (nest keys instead of joining them with a dot)", where, key)
		case known:
			l.origin[key] = where
		case l.isGroup(key) && v.Kind == yaml.MappingNode:
			l.checkMapping(name, key+".", v)
		case l.isGroup(key):
			l.fault("%s: %s is a group of settings and needs keys below it", where, key)
		default:
			l.fault("%s: unknown key %s%s", where, key, l.suggest(key))
		}
	}
}

func (l *loader) isGroup(key string) bool {
	for known := range l.byKey {
		if strings.HasPrefix(known, key+".") {
			return true
		}
	}
	return false
}

// suggest returns the known key that differs from key only in spelling, as a hint.
func (l *loader) suggest(key string) string {
	plain := func(s string) string {
		return strings.TrimSuffix(strings.NewReplacer("_", "", "-", "", ".", "").Replace(strings.ToLower(s)), "s")
	}
	for _, s := range Table() {
		if plain(s.Key) == plain(key) {
			return fmt.Sprintf(" (did you mean %s?)", s.Key)
		}
	}
	return ""
}
