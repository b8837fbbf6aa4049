// The commands of SPIRE's server program, as they are in its module, without the server: that takes modules which not
// everybody can get, and nobody needs here.
package main

import (
	"fmt"
	"os"

	"github.com/spiffe/spire/cmd/spire-server/cli/agent"
	"github.com/spiffe/spire/cmd/spire-server/cli/bundle"
	"github.com/spiffe/spire/cmd/spire-server/cli/entry"
	"github.com/spiffe/spire/cmd/spire-server/cli/federation"
	"github.com/spiffe/spire/cmd/spire-server/cli/healthcheck"
	"github.com/spiffe/spire/cmd/spire-server/cli/jwt"
	"github.com/spiffe/spire/cmd/spire-server/cli/token"
	"github.com/spiffe/spire/cmd/spire-server/cli/x509"
)

type command interface{ Run([]string) int }

var commands = map[string]func() command{
	"agent ban":          func() command { return agent.NewBanCommand() },
	"agent count":        func() command { return agent.NewCountCommand() },
	"agent evict":        func() command { return agent.NewEvictCommand() },
	"agent list":         func() command { return agent.NewListCommand() },
	"agent purge":        func() command { return agent.NewPurgeCommand() },
	"agent show":         func() command { return agent.NewShowCommand() },
	"bundle count":       func() command { return bundle.NewCountCommand() },
	"bundle delete":      func() command { return bundle.NewDeleteCommand() },
	"bundle list":        func() command { return bundle.NewListCommand() },
	"bundle set":         func() command { return bundle.NewSetCommand() },
	"bundle show":        func() command { return bundle.NewShowCommand() },
	"entry count":        func() command { return entry.NewCountCommand() },
	"entry create":       func() command { return entry.NewCreateCommand() },
	"entry delete":       func() command { return entry.NewDeleteCommand() },
	"entry show":         func() command { return entry.NewShowCommand() },
	"entry update":       func() command { return entry.NewUpdateCommand() },
	"federation create":  func() command { return federation.NewCreateCommand() },
	"federation delete":  func() command { return federation.NewDeleteCommand() },
	"federation list":    func() command { return federation.NewListCommand() },
	"federation refresh": func() command { return federation.NewRefreshCommand() },
	"federation show":    func() command { return federation.NewShowCommand() },
	"federation update":  func() command { return federation.NewUpdateCommand() },
	"healthcheck":        func() command { return healthcheck.NewHealthCheckCommand() },
	"jwt mint":           func() command { return jwt.NewMintCommand() },
	"token generate":     func() command { return token.NewGenerateCommand() },
	"x509 mint":          func() command { return x509.NewMintCommand() },
}

func main() {
	for words := 1; words <= 2 && words < len(os.Args); words++ {
		name := os.Args[1]
		if words == 2 {
			name += " " + os.Args[2]
		}
		if make, found := commands[name]; found {
			os.Exit(make().Run(os.Args[words+1:]))
		}
	}
	fmt.Fprintln(os.Stderr, "no such command")
	os.Exit(2)
}
