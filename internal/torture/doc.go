// Package torture is the proof from outside: tests that run the program as its
// users do, against real Apache Kafka and PostgreSQL, hurt it, and then compare
// what it was given with what the table holds, by plain SQL.
//
// It imports neither the source nor the loader, and believes nothing that they
// say about themselves: not the ledger, not the positions, not a metric. What
// was sent is a file that the test wrote or fetched; PostgreSQL reads that file
// itself and compares the two tables row by row.
//
// Random choices come from a seed that every test prints; -seed repeats a run.
package torture
