#!/usr/bin/env node
/** Entry point of the command `pinion`. Exit codes are in exit-codes.ts. */
import { enableCompileCache } from "node:module";

async function start(): Promise<void> {
  const { build } = await import("../build.ts");
  const args =
    build.program === "piniond"
      ? (await import("./device/daemon-arguments.ts")).daemonArguments(process.argv.slice(2))
      : process.argv.slice(2);
  const { reportArgument } = await import("./up/report-argument.ts");
  if (args[0] === reportArgument) return (await import("./up/machine-report.ts")).reportOnMachine();
  const [{ environment }, { concealSecrets, startsDaemon }] = await Promise.all([
    import("../environment.ts"),
    import("./device/conceal.ts"),
  ]);
  if (startsDaemon(args)) {
    const { selfCommand } = await import("./device/self.ts");
    concealSecrets(environment(), args, selfCommand());
  }
  const [{ processCli }, { main }] = await Promise.all([import("./cli.ts"), import("./command-line.ts")]);

  const code = await main(processCli(environment()), args);
  // Not process.exit: pending writes to a pipe would be lost.
  if (code !== 0) process.exitCode = code;
}

// Before any large import: halves the start time of every command after the first.
enableCompileCache();
// Without a top-level await, which a single-file binary does not support.
void start();
