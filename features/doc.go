// Package features is the place of what can be switched off in the
// configuration: one sub-package each. They take part in commits through
// storage.Hook and read through the store; none knows another, the cluster or
// the server.
package features
