// A node attestor "tpm" for SPIRE's agent that says what spire-tpm-plugin 1.10 says, by the same library, to a TPM behind a
// unix socket: that plugin is in no registry, and knows devices only.
package main

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net"
	"os"

	"github.com/google/go-attestation/attest"
	"github.com/spiffe/spire-plugin-sdk/pluginmain"
	nodeattestorv1 "github.com/spiffe/spire-plugin-sdk/proto/spire/plugin/agent/nodeattestor/v1"
)

// A TPM whose boot log nobody asks for.
type channel struct{ net.Conn }

func (channel) MeasurementLog() ([]byte, error) { return nil, errors.New("there is none") }

type shown struct {
	EK []byte
	AK attest.AttestationParameters
}

type attestor struct {
	nodeattestorv1.UnimplementedNodeAttestorServer
}

func (attestor) AidAttestation(stream nodeattestorv1.NodeAttestor_AidAttestationServer) error {
	// The agent starts it with the socket as its only argument.
	connection, err := net.Dial("unix", os.Args[1])
	if err != nil {
		return err
	}
	tpm, err := attest.OpenTPM(&attest.OpenConfig{CommandChannel: channel{connection}})
	if err != nil {
		return err
	}
	defer tpm.Close()
	ak, err := tpm.NewAK(nil)
	if err != nil {
		return err
	}
	defer ak.Close(tpm)
	payload, err := show(tpm, ak)
	if err != nil {
		return err
	}
	if err := stream.Send(&nodeattestorv1.PayloadOrChallengeResponse{
		Data: &nodeattestorv1.PayloadOrChallengeResponse_Payload{Payload: payload},
	}); err != nil {
		return err
	}
	asked, err := stream.Recv()
	if err != nil {
		return err
	}
	var challenge struct{ EC attest.EncryptedCredential }
	if err := json.Unmarshal(asked.Challenge, &challenge); err != nil {
		return err
	}
	secret, err := ak.ActivateCredential(tpm, challenge.EC)
	if err != nil {
		return err
	}
	answer, err := json.Marshal(struct{ Secret []byte }{secret})
	if err != nil {
		return err
	}
	return stream.Send(&nodeattestorv1.PayloadOrChallengeResponse{
		Data: &nodeattestorv1.PayloadOrChallengeResponse_ChallengeResponse{ChallengeResponse: answer},
	})
}

func show(tpm *attest.TPM, ak *attest.AK) ([]byte, error) {
	eks, err := tpm.EKs()
	if err != nil {
		return nil, err
	}
	if len(eks) == 0 {
		return nil, errors.New("there is no EK")
	}
	key, err := x509.MarshalPKIXPublicKey(eks[0].Public)
	if err != nil {
		return nil, err
	}
	var ek []byte
	if eks[0].Certificate != nil {
		ek = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: eks[0].Certificate.Raw})
	}
	ek = append(ek, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: key})...)
	return json.Marshal(shown{EK: ek, AK: ak.AttestationParameters()})
}

func main() {
	pluginmain.Serve(nodeattestorv1.NodeAttestorPluginServer(attestor{}))
}
