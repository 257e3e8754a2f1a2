import type { Command } from "commander";
import { type Cli, examples } from "../cli.ts";
import { optionsOf } from "../context.ts";
import type { ConformanceOptions } from "./conformance/conformance.ts";

const contract = `
The command starts the daemon, once for each case and again after it was killed. It is told by its environment:
  PINION_URL         the server to dial, by gRPC without TLS
  PINION_STATE_DIR   where its outbox belongs; identity.json is there, as \`pinion device enroll\` writes it:
                     install_id, device_id, org_id, token, url
  PINION_TOKEN, PINION_INSTALL_ID   the same token and install_id, for daemons that read no file
For --agent-kind it has an executor that gives the prompt to \`sh\` on its standard input.
What the cases expect is written in docs/protocol.md.`;

/**
 * `pinion device conformance`: plays a server against any daemon and reports violations of the
 * protocol.
 */
export function addConformance(device: Command, cli: Cli): void {
  const command = device
    .command("conformance")
    .description("play a server against a daemon in any language, and report what it does wrong")
    .argument("[command...]", "starts the daemon; put it after --")
    .option("--only <case...>", "these cases")
    .option("--list", "the cases, without playing them")
    .option("--agent-kind <kind>", "the executor that runs a prompt with sh", "sh")
    .option("--jobs <number>", "cases at once, 1 to 16", "4")
    .option("--patience <length>", "how long a case waits for what it expects", "15s")
    .action(async (words: string[], _options, command: Command) => {
      const options = optionsOf<ConformanceOptions>(command);
      // The played server has the validator and the database of the real one: `device run` does not
      // load them.
      const { conformance, list } = await import("./conformance/conformance.ts");
      if (options.list) return list(cli, options);
      await conformance(cli, words, options);
    });
  command.addHelpText("after", contract);
  examples(command, [
    ["device conformance -- python examples/python/daemon.py sh", "exit code 1 if a case fails"],
    ["device conformance --only cancel drain -- ./daemon sh", "only these"],
    ["device conformance --list", "what is checked"],
  ]);
}
