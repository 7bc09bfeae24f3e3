package cli

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"kvs/auth"
)

func newSecret() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Make the cluster secret, find it, change it",
		Long: `Work on the cluster secret, which all nodes of a cluster share: whoever has it can
join and can make tokens. It is looked for in KVS_CLUSTER_SECRET, else in the
configuration (--config, else ./config.yaml), else it is this user's automatic
file.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSecretNew(), newSecretPath(), newSecretRotate())
	return cmd
}

func newSecretNew() *cobra.Command {
	return &cobra.Command{
		Use:   "new",
		Short: "Print a fresh secret",
		Long: `Print a fresh secret. It is written nowhere else; to use it:

  (umask 077; kvs secret new > cluster.secret)   and cluster_secret_file: cluster.secret`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var b [32]byte
			rand.Read(b[:]) // never fails
			_, err := fmt.Fprintln(cmd.OutOrStdout(), hex.EncodeToString(b[:]))
			return err
		},
	}
}

func newSecretPath() *cobra.Command {
	var configFile string
	cmd := &cobra.Command{
		Use:   "path",
		Short: "Print where the secret stands: a file, or a setting",
		Args:  args(cobra.NoArgs),
	}
	configFlag(cmd, &configFile)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		place, err := findSecretPlace(configFile)
		if err != nil {
			return err
		}
		if place.missing() {
			fmt.Fprintln(cmd.ErrOrStderr(), "it is not there yet: the first node, or `kvs token create`, makes it")
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), place)
		return err
	}
	return cmd
}

func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", "", "the configuration that names the secret (default ./config.yaml if there is one)")
}

// rotation is one step of changing the secret.
type rotation struct {
	name, short string
	step        func(file string) error
	done        string // what is so now; %s is the file
	next        string // what comes after the copies and restarts
}

var rotations = []rotation{
	{
		"add", "Add a fresh secret, which is accepted and not used yet", auth.RotateAdd,
		"%s holds a fresh secret too. A node that reads it accepts both, and uses the old one.",
		"run `kvs secret rotate switch`.",
	},
	{
		"switch", "Use the fresh secret, and still accept the old one", auth.RotateSwitch,
		"%s has the fresh secret first. A node that reads it uses that one, and still accepts the old one.",
		"give clients new tokens for those that they have, which were made with the old secret; then run `kvs secret rotate finish`.",
	},
	{
		"finish", "Accept the old secret no longer", auth.RotateFinish,
		"%s holds the new secret alone. A node that reads it refuses the old one, and all tokens that were made with it.",
		"nothing more: the secret is changed.",
	},
}

func newSecretRotate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Change the secret while the cluster runs",
		Long: `Change the secret while the cluster runs, in three steps: add, switch, finish. After
each the file is copied to all nodes, and they are restarted one by one: so at no
moment do two nodes fail to understand each other. Each step says what comes next.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, r := range rotations {
		cmd.AddCommand(newRotation(r))
	}
	return cmd
}

func newRotation(r rotation) *cobra.Command {
	var configFile, file string
	cmd := &cobra.Command{Use: r.name, Short: r.short, Args: args(cobra.NoArgs)}
	configFlag(cmd, &configFile)
	cmd.Flags().StringVar(&file, "file", "", "the secret file, instead of the one that the configuration names")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if file != "" && configFile != "" {
			return usagef("--file and --config both say where the secret is: give one")
		}
		if file == "" {
			place, err := findSecretPlace(configFile)
			switch {
			case err != nil:
				return err
			case place.file == "":
				return place.rotateByHand(r.name)
			case place.missing():
				return fmt.Errorf("%s does not exist: there is no secret to change", place.file)
			}
			file = place.file
			if n := len(place.cfg.PreviousSecrets); n > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "previous_secrets holds %s beside this file, which this command leaves there\n", count(n, "accepted secret"))
			}
		}
		if err := r.step(file); err != nil {
			return err
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), r.done+`
Next:
  1. copy it to every other node, readable by the node's user alone
  2. restart the nodes one by one, each when the one before answers `+"`kvs health`"+`
  3. %s
`, file, r.next)
		return err
	}
	return cmd
}

// rotateByHand says what to change where the secret stands in a setting: there
// it is the user's to edit. The error is that this command did nothing.
func (p secretPlace) rotateByHand(step string) error {
	accepted := len(p.cfg.PreviousSecrets)
	switch {
	case step == "add" && accepted > 0:
		return fmt.Errorf("beside %s, previous_secrets holds %s already: finish that rotation first", p, count(accepted, "secret"))
	case step != "add" && accepted == 0:
		return fmt.Errorf("beside %s, previous_secrets holds none, so no rotation is under way: begin with `kvs secret rotate add`", p)
	}
	secret, previous := p.line("cluster_secret"), p.line("previous_secrets")
	var lines []string
	next := "kvs secret rotate switch"
	switch step {
	case "add":
		lines = []string{previous("the fresh secret, made by `kvs secret new`")}
	case "switch":
		lines = []string{secret("the fresh secret, which is in previous_secrets now"), previous("the old secret, which is in cluster_secret now")}
		next = "kvs secret rotate finish"
	case "finish":
		lines = []string{previous("")}
		next = ""
	}
	text := fmt.Sprintf("the secret stands in %s, which is yours to change. On every node, make it\n  %s\nand restart the nodes one by one", p, strings.Join(lines, "\n  "))
	if next != "" {
		text += ", then run `" + next + "`"
	}
	return errors.New(text)
}

// line gives a function that writes a setting, as it is to be where the secret
// stands. A place that the file has for it already is named.
func (p secretPlace) line(name string) func(value string) string {
	if p.inEnvironment() {
		return func(value string) string {
			variable := "KVS_" + strings.ToUpper(name) + "="
			if value == "" {
				return variable
			}
			return variable + "<" + value + ">"
		}
	}
	where := "a line of its own: "
	if n := settingLine(p.config, name); n > 0 {
		where = fmt.Sprintf("line %d: ", n)
	}
	return func(value string) string {
		switch {
		case name == "cluster_secret":
			return fmt.Sprintf("%s%s: \"<%s>\"", where, name, value)
		case value == "":
			return where + name + ": []"
		}
		return fmt.Sprintf("%s%s: [\"<%s>\"]", where, name, value)
	}
}

// settingLine gives the number of the line that sets name, 0 for none.
func settingLine(file, name string) int {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	setting := regexp.MustCompile(`^["']?` + regexp.QuoteMeta(name) + `["']?\s*:`)
	n := 0
	for line := range strings.Lines(string(b)) {
		if n++; setting.MatchString(line) {
			return n
		}
	}
	return 0
}
