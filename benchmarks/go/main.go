// Command peer is the limit that the benchmark compares with: the RetrieveSecret and Echo functions written by hand in
// Go, with Dapr's own Go stubs, on grpc-go or net/http.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

const jsonType = "application/json"

// functions holds what both servers share: the sidecar's client, made once.
type functions struct {
	sidecar runtimev1.DaprClient
}

// secrets reads n distinct secrets, all at once, and answers them together.
func (f functions) secrets(ctx context.Context, n int) ([]byte, error) {
	found, errs := make([]map[string]string, n), make([]error, n)
	var reads sync.WaitGroup
	for i := range found {
		reads.Go(func() {
			secret, err := f.sidecar.GetSecret(ctx, &runtimev1.GetSecretRequest{
				StoreName: "localsecretstore",
				Key:       fmt.Sprintf("secret-%d", i),
				Metadata:  map[string]string{"namespace": "default"},
			})
			found[i], errs[i] = secret.GetData(), err
		})
	}
	reads.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	answer := make(map[string]string, n)
	for _, secret := range found {
		maps.Copy(answer, secret)
	}
	return json.Marshal(answer)
}

// retrieveSecret reads the secret with one GetSecret and answers it as JSON.
func (f functions) retrieveSecret(ctx context.Context) ([]byte, error) {
	secret, err := f.sidecar.GetSecret(ctx, &runtimev1.GetSecretRequest{
		StoreName: "localsecretstore",
		Key:       "my-secret",
		Metadata:  map[string]string{"namespace": "default"},
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(secret.GetData())
}

// callback is the app's side of Dapr's gRPC app channel.
type callback struct {
	runtimev1.UnimplementedAppCallbackServer
	functions
}

func (c callback) OnInvoke(ctx context.Context, in *commonv1.InvokeRequest) (*commonv1.InvokeResponse, error) {
	var body []byte
	switch in.GetMethod() {
	case "RetrieveSecret":
		var err error
		if body, err = c.retrieveSecret(ctx); err != nil {
			return nil, err
		}
	case "Echo":
		body = in.GetData().GetValue()
	case "Secrets1", "Secrets5", "Secrets20":
		n, err := strconv.Atoi(strings.TrimPrefix(in.GetMethod(), "Secrets"))
		if err != nil {
			return nil, err
		}
		if body, err = c.secrets(ctx, n); err != nil {
			return nil, err
		}
	default:
		return nil, status.Errorf(codes.NotFound, "no method %q", in.GetMethod())
	}
	return &commonv1.InvokeResponse{Data: &anypb.Any{Value: body}, ContentType: jsonType}, nil
}

func (callback) ListTopicSubscriptions(context.Context, *emptypb.Empty) (*runtimev1.ListTopicSubscriptionsResponse, error) {
	return &runtimev1.ListTopicSubscriptionsResponse{}, nil
}

func (callback) ListInputBindings(context.Context, *emptypb.Empty) (*runtimev1.ListInputBindingsResponse, error) {
	return &runtimev1.ListInputBindingsResponse{}, nil
}

func serveGRPC(listener net.Listener, functions functions) error {
	server := grpc.NewServer()
	runtimev1.RegisterAppCallbackServer(server, callback{functions: functions})
	return server.Serve(listener)
}

func serveHTTP(listener net.Listener, functions functions) error {
	routes := http.NewServeMux()
	routes.HandleFunc("POST /RetrieveSecret", func(w http.ResponseWriter, r *http.Request) {
		body, err := functions.retrieveSecret(r.Context())
		answer(w, body, err)
	})
	routes.HandleFunc("POST /Echo", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		answer(w, body, err)
	})
	return http.Serve(listener, routes)
}

func answer(w http.ResponseWriter, body []byte, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", jsonType)
	w.Write(body)
}

func main() {
	protocol := flag.String("protocol", "grpc", "grpc or http")
	address := flag.String("address", "127.0.0.1:3001", "where to listen")
	flag.Parse()

	connection, err := grpc.NewClient("127.0.0.1:"+os.Getenv("DAPR_GRPC_PORT"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	serve := map[string]func(net.Listener, functions) error{"grpc": serveGRPC, "http": serveHTTP}[*protocol]
	if serve == nil {
		log.Fatalf("no protocol %q: use grpc or http", *protocol)
	}
	log.Fatal(serve(listener, functions{sidecar: runtimev1.NewDaprClient(connection)}))
}
