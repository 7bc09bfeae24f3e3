// Command bench measures the store and prints a table with a line for each
// figure: what was measured, the figure, and what it is compared with in the
// same run. It builds the node from this tree, starts real processes on
// loopback in a temporary directory, and stops by itself.
//
//	go run ./bench                    everything
//	go run ./bench -run http,restart  some of it
//	go run ./bench -list              what there is
//
// Machines differ and are shared: believe the ratios, not the absolute figures.
package main
