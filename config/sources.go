package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const envPrefix = "KVS_"

// applyFile takes the settings of a YAML file.
func (c *Config) applyFile(path string, b []byte) (problems []error) {
	refuse := func(line int, format string, args ...any) {
		problems = append(problems, fmt.Errorf("%s:%d: %w", path, line, fmt.Errorf(format, args...)))
	}
	decoder := yaml.NewDecoder(bytes.NewReader(b))
	var document yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) { // nothing but comments
		return nil
	}
	if err != nil {
		return []error{fmt.Errorf("%s: %w", path, err)}
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return []error{fmt.Errorf("%s: it holds more than one YAML document", path)}
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		if root.Tag == "!!null" {
			return nil
		}
		refuse(root.Line, "it does not consist of lines like `port: 8080`")
		return problems
	}
	settings := c.settings()
	seen := map[string]int{}
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		name := key.Value
		if first, ok := seen[name]; ok {
			refuse(key.Line, "%s is there twice, first in line %d", name, first)
			continue
		}
		seen[name] = key.Line
		s, ok := find(settings, name)
		if !ok {
			refuse(key.Line, "unknown key %q%s", name, suggestion(settings, name))
			continue
		}
		if err := s.setNode(value); err != nil {
			refuse(key.Line, "%s: %w", name, err)
		}
	}
	return problems
}

// setNode takes a value as YAML has it. Scalars are taken by their text, so that
// quotes make no difference.
func (s setting) setNode(n *yaml.Node) error {
	if s.list == nil {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			return errors.New("it needs a single value")
		}
		return s.scalar(n.Value)
	}
	if n.Tag == "!!null" { // a list whose items are all commented out
		return s.list(nil)
	}
	if n.Kind != yaml.SequenceNode {
		return errors.New(`it needs a list, like ["a", "b"] or []`)
	}
	var list []string
	for i, item := range n.Content {
		if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
			return fmt.Errorf("item %d: it needs a single value", i+1)
		}
		list = append(list, item.Value)
	}
	return s.list(list)
}

// applyEnv takes the settings of an environment.
func (c *Config) applyEnv(env []string) (problems []error) {
	settings := c.settings()
	given := map[string]bool{}
	for _, variable := range env {
		name, value, _ := strings.Cut(variable, "=")
		key, ok := strings.CutPrefix(name, envPrefix)
		if !ok || key != strings.ToUpper(key) {
			continue
		}
		key = strings.ToLower(key)
		s, ok := find(settings, key)
		if !ok {
			// Others may use the prefix too, so only what looks like a slip is refused.
			if near := nearest(settings, key, 2); near != "" {
				problems = append(problems, fmt.Errorf("environment: unknown variable %s: did you mean %s?",
					name, envPrefix+strings.ToUpper(near)))
			}
			continue
		}
		given[key] = true
		if err := s.setEnv(value); err != nil {
			problems = append(problems, fmt.Errorf("environment: %s: %w", name, err))
		}
	}
	// The two say the same in different ways, so one here also overrides the
	// other in the file.
	if given["cluster_secret"] && !given["cluster_secret_file"] {
		c.ClusterSecretFile = ""
	}
	if given["cluster_secret_file"] && !given["cluster_secret"] {
		c.ClusterSecret = ""
	}
	return problems
}

func (s setting) setEnv(value string) error {
	if s.list == nil {
		err := s.scalar(value)
		if err != nil && s.name == "port" && strings.HasPrefix(value, "tcp://") {
			err = fmt.Errorf("%w (Kubernetes sets it for a service called kvs: "+
				"set enableServiceLinks: false in the pod's spec)", err)
		}
		return err
	}
	var list []string
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return s.list(list)
}

func find(settings []setting, name string) (setting, bool) {
	i := slices.IndexFunc(settings, func(s setting) bool { return s.name == name })
	if i < 0 {
		return setting{}, false
	}
	return settings[i], true
}

func suggestion(settings []setting, name string) string {
	if near := nearest(settings, strings.ToLower(name), 1+len(name)/3); near != "" {
		return fmt.Sprintf(": did you mean %q?", near)
	}
	return ""
}

// nearest gives the key that is the fewest edits away from name, or "" if all
// are more than most away.
func nearest(settings []setting, name string, most int) string {
	best := ""
	for _, s := range settings {
		if d := distance(name, s.name); d <= most {
			best, most = s.name, d-1
		}
	}
	return best
}

// distance is the number of characters to insert, delete or replace to make b
// of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d++
			}
			diagonal = row[j+1]
			row[j+1] = min(d, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
