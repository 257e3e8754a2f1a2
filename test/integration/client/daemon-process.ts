/**
 * A daemon in its own process, for tests that kill the daemon. Reads its options from the first
 * argument (JSON) and writes its events to stdout, a JSON line each; `isQuiet`: without the output
 * events of programs.
 */
import { parseConfig, runDaemon } from "../../../clients/ts/src/index.ts";
import { quickTiming } from "./timing.ts";

const options: {
  url: string;
  stateDir: string;
  config: string;
  installId?: string;
  isQuiet?: boolean;
} = JSON.parse(process.argv[2] ?? "{}");
const controller = new AbortController();
process.on("SIGTERM", () => controller.abort());

await runDaemon({
  url: options.url,
  token: "pin_dev_test",
  stateDir: options.stateDir,
  ...(options.installId === undefined ? {} : { installId: options.installId }),
  config: parseConfig(options.config),
  signal: controller.signal,
  timing: { ...quickTiming, ackDeadlineMs: 60_000 },
  onEvent: (event) => {
    if (options.isQuiet === true && (event.type === "output" || event.type === "activity")) return;
    const line = JSON.stringify(event, (_key, value) => (typeof value === "bigint" ? String(value) : value));
    process.stdout.write(`${line}\n`);
  },
});
