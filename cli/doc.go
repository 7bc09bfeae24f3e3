// Package cli is the command line: one file per subcommand, built on package
// client but for what runs a node (serve, demo) or works on files alone
// (conflict, config).
//
// Invariants:
//   - A command reads and writes only the streams it is given, ends when its
//     context does, and returns its error. Run alone prints errors and turns
//     them into an exit code; main alone exits.
//   - What was asked for goes to standard output, everything else (progress,
//     notes, errors) to standard error.
//   - Output is for people by default, and JSON with -o json: one document, or
//     one document a line where there may be many.
package cli
