package schema

// ParseDataset reads "namespace/name".
func ParseDataset(s string) (Dataset, error) { panic("stub") }

// ParseManifest reads a manifest in YAML; unknown keys are refused with their line.
func ParseManifest(yaml []byte) (Manifest, error) { panic("stub") }

// ParseCanonical reads the canonical form that Canonical wrote.
func ParseCanonical(json []byte) (Manifest, error) { panic("stub") }

// Canonical returns the canonical form: JSON with sorted keys and every default written out.
func (m Manifest) Canonical() []byte { panic("stub") }

// Hash returns the SHA-256 of the canonical form, 64 hexadecimal digits.
func (m Manifest) Hash() string { panic("stub") }

// Ref returns "namespace/name@hash".
func (m Manifest) Ref() string { panic("stub") }
