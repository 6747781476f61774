package intake

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// state is what is kept beside the journal of a file that was encoded whole.
type state struct {
	Dataset  string `json:"dataset"`
	Format   Format `json:"format"`
	SHA256   string `json:"sha256"`
	Label    string `json:"label,omitempty"`
	Manifest string `json:"manifest_hash"`
	Null     string `json:"null"`
	Source   string `json:"source"` // the producer's name, to which the journal belongs
	Rows     int64  `json:"rows"`
	Batches  int64  `json:"batches"`
	Bytes    int64  `json:"bytes"`
}

const stateName = "push.json"

// readState returns the state of the push in dir; nil: the file was not encoded.
func readState(dir string) (*state, error) {
	text, err := os.ReadFile(filepath.Join(dir, stateName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Join(dir, stateName), err)
	}
	return &s, nil
}

// write puts the state file in its place, whole or not at all.
func (s *state) write(dir string) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	name := filepath.Join(dir, stateName)
	f, err := os.Create(name + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes sure that the names in dir outlive a crash of the machine.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
