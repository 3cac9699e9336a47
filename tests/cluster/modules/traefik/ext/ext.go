// Package ext is empty here as upstream: a module of its own that Traefik's own does not contain.
package ext

// HTTP adds nothing to Traefik's HTTP configuration.
type HTTP struct{}

// Router adds nothing to its routers.
type Router struct{}
