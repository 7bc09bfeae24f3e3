package cli

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"kvs/config"
)

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Work on configuration files",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigCheck())
	return cmd
}

func newConfigCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Tell whether a node would take a configuration file",
		Long: `Read FILE and the KVS_ variables of the environment as a node would at its start,
and tell what is wrong, or what the node would be. The exit code is 1 if the
node would refuse it.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.Load(args[0], os.Environ())
			if err != nil {
				return err
			}
			seeds := "no seed nodes"
			if len(cfg.SeedNodes) > 0 {
				seeds = "seed nodes " + strings.Join(cfg.SeedNodes, ", ")
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: node %s, listening on %s, data in %s, %s\n", args[0],
				cfg.NodeID, net.JoinHostPort(cfg.BindAddress, strconv.Itoa(cfg.Port)), cfg.DataDir, seeds)
			return err
		},
	}
}
