// A workload on go-spiffe: gets its identities, and says when they are taken from it.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	address := workloadapi.WithAddr("unix://" + os.Args[1])
	options := workloadapi.WithClientOptions(address)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	x509, err := workloadapi.NewX509Source(ctx, options)
	check(err)
	svid, err := x509.GetX509SVID()
	check(err)
	fmt.Println("x509-svid", svid.ID)
	bundle, err := x509.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
	check(err)
	fmt.Println("x509-bundle", bundle.TrustDomain(), len(bundle.X509Authorities()))

	jwt, err := workloadapi.NewJWTSource(ctx, options)
	check(err)
	token, err := jwt.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "db"})
	check(err)
	fmt.Println("jwt-svid", token.ID, token.Audience[0])
	// Here, by the keys that came, and by the agent.
	_, err = jwtsvid.ParseAndValidate(token.Marshal(), jwt, []string{"db"})
	check(err)
	client, err := workloadapi.New(ctx, address)
	check(err)
	validated, err := client.ValidateJWTSVID(ctx, token.Marshal(), "db")
	check(err)
	fmt.Println("validated", validated.ID)
	fmt.Println("standing")

	bufio.NewReader(os.Stdin).ReadString('\n')
	_, err = client.FetchX509SVID(ctx)
	fmt.Println("fallen", err)
	_, err = client.FetchJWTSVID(ctx, jwtsvid.Params{Audience: "db"})
	fmt.Println("no token", err)
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
