package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// DefaultFile is read from the working directory if it is there.
const DefaultFile = "tallyman.yaml"

// Input is where values come from.
type Input struct {
	// File is the configuration file; it must exist. Defaults to DefaultFile, which need not.
	File string
	// Env is the environment, as os.Environ returns it. Defaults to an empty one.
	Env []string
	// Flags are the command line's; those named as a setting and given count. Defaults to none.
	Flags *pflag.FlagSet
}

// Faults is an error with one line for each thing that is wrong with the configuration.
type Faults []string

// Error returns the faults, a line each.
func (f Faults) Error() string { return strings.Join(f, "\n") }

// Load reads and checks all settings. The error, if not of reading a file, is Faults.
func Load(in Input) (Config, error) {
	l := loader{koanf: koanf.New("."), origin: map[string]string{}, byKey: map[string]Setting{}}
	for _, s := range Table() {
		l.byKey[s.Key] = s
	}
	if err := l.readFile(in.File); err != nil {
		return Config{}, err
	}
	l.readEnv(in.Env)
	l.readFlags(in.Flags)

	cfg := Config{WarehouseFromPG: hasPG(in.Env)}
	for _, s := range Table() {
		l.set(&cfg, s)
	}
	cfg.URLFromFlag = strings.HasPrefix(l.origin["warehouse.url"], "--")
	if len(l.faults) > 0 {
		return Config{}, l.faults
	}
	return cfg, nil
}

// loader merges the layers and remembers where each value came from.
type loader struct {
	koanf  *koanf.Koanf
	byKey  map[string]Setting
	origin map[string]string // by key, for messages: "tallyman.yaml:3"
	faults Faults
}

func (l *loader) fault(format string, args ...any) {
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
}

func (l *loader) readFile(name string) error {
	given := name != ""
	if !given {
		name = DefaultFile
	}
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && !given {
		return nil
	}
	if err != nil {
		return Faults{fmt.Sprintf("read configuration: %v", err)}
	}
	if !l.checkKeys(name, text) {
		return nil
	}
	if err := l.koanf.Load(file.Provider(name), yaml.Parser()); err != nil {
		l.fault("%s: %s", name, strings.Join(strings.Fields(err.Error()), " "))
	}
	return nil
}

// readEnv takes TALLYMAN_… and the standard names. An unknown TALLYMAN_… is
// passed over: Kubernetes sets some by itself for a service called tallyman.
func (l *loader) readEnv(environ []string) {
	own, standard := map[string]string{}, map[string]string{}
	for _, s := range l.byKey {
		own[s.Env()] = s.Key
		for _, name := range s.Standard {
			standard[name] = s.Key
		}
	}
	for _, names := range []map[string]string{standard, own} {
		provider := env.Provider(".", env.Opt{
			EnvironFunc: func() []string { return environ },
			TransformFunc: func(name, value string) (string, any) {
				key := names[name]
				if key == "" || value == "" {
					return "", nil
				}
				l.origin[key] = name
				return key, value
			},
		})
		if err := l.koanf.Load(provider, nil); err != nil {
			l.fault("environment: %v", err)
		}
	}
}

func (l *loader) readFlags(flags *pflag.FlagSet) {
	if flags == nil {
		return
	}
	names := map[string]string{}
	for _, s := range l.byKey {
		if !s.Secret {
			names[s.Flag()] = s.Key
		}
	}
	provider := posflag.ProviderWithFlag(flags, ".", nil, func(f *pflag.Flag) (string, any) {
		key := names[f.Name]
		if key == "" || !f.Changed {
			return "", nil
		}
		l.origin[key] = "--" + f.Name
		return key, f.Value.String()
	})
	if err := l.koanf.Load(provider, nil); err != nil {
		l.fault("flags: %v", err)
	}
}

// set puts the value of s, from whichever layer, where it belongs.
func (l *loader) set(cfg *Config, s Setting) {
	text, list := s.Default, []string(nil)
	if l.koanf.Exists(s.Key) {
		switch v := l.koanf.Get(s.Key).(type) {
		case nil:
			l.fault("%s: %s has no value", l.origin[s.Key], s.Key)
			return
		case map[string]any:
			l.fault("%s: %s is not a group; give it a value (%s)", l.origin[s.Key], s.Key, s.Unit)
			return
		case []any:
			list = []string{}
			for _, e := range v {
				list = append(list, fmt.Sprint(e))
			}
			text = strings.Join(list, ",")
		default:
			text = fmt.Sprint(v)
		}
	}
	if strings.ContainsRune(text, 0) {
		l.fault("%s: %s contains a NUL character", l.origin[s.Key], s.Key)
		return
	}
	if err := assign(s.bind(cfg), text, list != nil); err != nil {
		l.fault("%s: %s: %v", l.origin[s.Key], s.Key, err)
	}
}

// hasPG says whether the environment describes a PostgreSQL server.
func hasPG(environ []string) bool {
	return slices.ContainsFunc(environ, func(e string) bool {
		name, value, _ := strings.Cut(e, "=")
		return value != "" && slices.Contains([]string{"PGHOST", "PGSERVICE", "PGDATABASE"}, name)
	})
}
