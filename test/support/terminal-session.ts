/**
 * Runs command lines one after another on this process's terminal, as `pinion` would: the arguments
 * are a JSON list of lists. A command that begins with "live" is interrupted after a while.
 */
import { processCli } from "../../src/cli/cli.ts";
import { main } from "../../src/cli/command-line.ts";

/** Time in ms in which a live view has drawn itself. */
const liveMs = 1_500;

for (const args of JSON.parse(process.argv[2]!) as string[][]) {
  const isLive = args[0] === "live";
  const timer = isLive ? setTimeout(() => process.emit("SIGINT"), liveMs) : undefined;
  await main(processCli(process.env), isLive ? args.slice(1) : args);
  clearTimeout(timer);
}
process.stdout.write("the end\n", () => process.exit(0));
