// Command oras-client does, with the library that oras, helm and notation are made of, what the suite of real clients asks
// for: `attach REFERENCE TYPE FILE`, `chart REFERENCE CONFIG FILE` (as helm pushes one), `referrers REFERENCE [TYPE]`, `copy FROM TO` (with all that refers to it), `pull
// REFERENCE FOLDER`, `tags REPOSITORY`, `delete REFERENCE`. It speaks plain HTTP, and logs in as
// docker's configuration says.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	oras "oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/file"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "oras-client:", err)
		os.Exit(1)
	}
}

func open(reference string) (*remote.Repository, string, error) {
	parsed, err := registry.ParseReference(reference)
	if err != nil {
		return nil, "", err
	}
	repository, err := remote.NewRepository(parsed.Registry + "/" + parsed.Repository)
	if err != nil {
		return nil, "", err
	}
	repository.PlainHTTP = true
	store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return nil, "", err
	}
	repository.Client = &auth.Client{Cache: auth.NewCache(), Credential: credentials.Credential(store)}
	return repository, parsed.Reference, nil
}

func run(ctx context.Context, arguments []string) error {
	if len(arguments) < 2 {
		return errors.New("a command and a reference are needed")
	}
	repository, reference, err := open(arguments[1])
	if err != nil {
		return err
	}
	rest := append(arguments[2:], "", "")
	switch arguments[0] {
	case "attach":
		return attach(ctx, repository, reference, rest[0], rest[1])
	case "chart":
		return chart(ctx, repository, reference, rest[0], rest[1])
	case "referrers":
		subject, err := repository.Resolve(ctx, reference)
		if err != nil {
			return err
		}
		return repository.Referrers(ctx, subject, rest[0], func(found []v1.Descriptor) error {
			for _, each := range found {
				fmt.Println(each.Digest, each.ArtifactType)
			}
			return nil
		})
	case "copy":
		target, tag, err := open(rest[0])
		if err != nil {
			return err
		}
		copied, err := oras.ExtendedCopy(ctx, repository, reference, target, tag, oras.DefaultExtendedCopyOptions)
		fmt.Println(copied.Digest)
		return err
	case "pull":
		return pull(ctx, repository, reference, rest[0])
	case "tags":
		return repository.Tags(ctx, "", func(tags []string) error {
			for _, tag := range tags {
				fmt.Println(tag)
			}
			return nil
		})
	case "delete":
		found, err := repository.Resolve(ctx, reference)
		if err != nil {
			return err
		}
		return repository.Delete(ctx, found)
	}
	return fmt.Errorf("there is no command %s", arguments[0])
}

// attach pushes an artifact of one file that refers to what is there, and prints its digest.
func attach(ctx context.Context, repository *remote.Repository, reference, kind, path string) error {
	subject, err := repository.Resolve(ctx, reference)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	layer, err := oras.PushBytes(ctx, repository, "application/octet-stream", data)
	if err != nil {
		return err
	}
	layer.Annotations = map[string]string{v1.AnnotationTitle: filepath.Base(path)}
	options := oras.PackManifestOptions{Subject: &subject, Layers: []v1.Descriptor{layer}}
	manifest, err := oras.PackManifest(ctx, repository, oras.PackManifestVersion1_1, kind, options)
	fmt.Println(manifest.Digest)
	return err
}

// chart pushes a file as helm does, and prints the manifest's digest.
func chart(ctx context.Context, repository *remote.Repository, tag, config, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	described, err := oras.PushBytes(ctx, repository, "application/vnd.cncf.helm.config.v1+json", []byte(config))
	if err != nil {
		return err
	}
	layer, err := oras.PushBytes(ctx, repository, "application/vnd.cncf.helm.chart.content.v1.tar+gzip", data)
	if err != nil {
		return err
	}
	options := oras.PackManifestOptions{ConfigDescriptor: &described, Layers: []v1.Descriptor{layer}}
	manifest, err := oras.PackManifest(ctx, repository, oras.PackManifestVersion1_1, "", options)
	if err != nil {
		return err
	}
	fmt.Println(manifest.Digest)
	return repository.Tag(ctx, manifest, tag)
}

// pull fetches an artifact's files into a folder.
func pull(ctx context.Context, repository *remote.Repository, reference, folder string) error {
	store, err := file.New(folder)
	if err != nil {
		return err
	}
	defer store.Close()
	root, err := oras.Copy(ctx, repository, reference, store, "", oras.DefaultCopyOptions)
	if err != nil {
		return err
	}
	_, err = content.FetchAll(ctx, store, root)
	return err
}
