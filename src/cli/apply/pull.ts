import { existsSync } from "node:fs";
import type { Command } from "commander";
import { type Cli, examples, interruptSignal } from "../cli.ts";
import { connect, optionsOf } from "../context.ts";
import { writeWhole } from "../data-files.ts";
import { exitCodes, Failure } from "../failures.ts";
import { readInputText } from "./file/read-input.ts";
import { pulledFile } from "./pulled.ts";
import { readState } from "./state.ts";

type Options = { file: string; force?: boolean };

/** `pinion pull`: writes a file from the org, the inverse of `pinion apply`. */
export function addPull(program: Command, cli: Cli): void {
  const command = program
    .command("pull")
    .description(
      "write a file that describes the org's agents, destinations, platforms, watchers, hooks and labels of devices, for `pinion apply`",
    )
    .option("-f, --file <file>", 'where to; "-" is standard output', "pinion.toml")
    .option("--force", "replace a file that is there")
    .action(async (_options, command: Command) => {
      const { file, force } = optionsOf<Options>(command);
      const { clients, options, url } = connect<Options>(cli, command);
      const interrupt = interruptSignal();
      try {
        const state = await readState(clients, { signal: interrupt.signal });
        const { text, variables } = pulledFile(state, url);
        if (file === "-") return cli.program(text);
        const isUnchanged = existsSync(file) && readInputText(file) === text;
        if (existsSync(file) && !isUnchanged && !force) {
          throw new Failure(
            exitCodes.conflict,
            `there is a ${file} already`,
            "--force replaces it, -f names another",
          );
        }
        if (!isUnchanged) writeWhole(file, text, 0o644);
        const counts = {
          agents: state.agents.size,
          destinations: state.destinations.size,
          platforms: state.platforms.size,
          watchers: state.watchers.size,
          hooks: state.hooks.size,
          devices: state.devices.filter(({ labels }) => labels.length > 0).length,
        };
        if (options.json) {
          return cli.out(JSON.stringify({ file, unchanged: isUnchanged, ...counts, variables }));
        }
        const what = Object.entries(counts).map(([nouns, count]) => counted(count, nouns));
        cli.out(`${file}${isUnchanged ? " is as it should be" : " written"}: ${what.join(", ")}`);
        if (variables.length > 0) cli.note(`before it is applied, set: ${variables.join(", ")}`);
      } finally {
        interrupt.dispose();
      }
    });
  examples(command, [
    ["pull", "writes ./pinion.toml"],
    ["pull -f - | less", "only shows it"],
    ["pull --force", "replaces the one that is there"],
  ]);
}

/** A count with its noun: "1 agent", "2 agents". */
function counted(count: number, nouns: string): string {
  return `${count} ${count === 1 ? nouns.replace(/s$/, "") : nouns}`;
}
