// Verifies a node's certificate and its list as Go does, and says whether the list names it.
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
)

func main() {
	root := certificate(os.Args[1])
	node := certificate(os.Args[2])
	der, err := os.ReadFile(os.Args[3])
	check(err)
	roots := x509.NewCertPool()
	roots.AddCert(root)
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		options := x509.VerifyOptions{Roots: roots, DNSName: os.Args[4], KeyUsages: []x509.ExtKeyUsage{usage}}
		_, err = node.Verify(options)
		check(err)
	}
	list, err := x509.ParseRevocationList(der)
	check(err)
	check(list.CheckSignatureFrom(root))
	for _, entry := range list.RevokedCertificateEntries {
		if entry.SerialNumber.Cmp(node.SerialNumber) == 0 {
			fmt.Printf("revoked %d\n", entry.ReasonCode)
			return
		}
	}
	fmt.Println("good")
}

func certificate(path string) *x509.Certificate {
	bytes, err := os.ReadFile(path)
	check(err)
	block, _ := pem.Decode(bytes)
	certificate, err := x509.ParseCertificate(block.Bytes)
	check(err)
	return certificate
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
