import type { Command } from "commander";
import { build } from "../../build.ts";
import { type Cli, examples } from "../cli.ts";
import { optionsOf } from "../context.ts";
import { details } from "../print/table.ts";

const kinds = { source: "run from its sources", package: "npm's package", executable: "one file" };

/** `pinion version`: version and kind of this build. */
export function addVersion(program: Command, cli: Cli): void {
  const command = program
    .command("version")
    .description("which build this is: version, commit, kind, system")
    .action((_options, command: Command) => {
      const system = `${process.platform}-${process.arch}`;
      if (optionsOf(command).json) {
        const { program, version, commit, kind } = build;
        return cli.out(
          JSON.stringify({ program, version, commit, kind, system, node: process.versions.node }),
        );
      }
      const lines = details(
        [
          [build.program, build.version],
          ["commit", build.commit],
          ["build", kinds[build.kind]],
          ["system", system],
          ["node", process.versions.node],
        ],
        cli.colors.dim,
      );
      for (const line of lines) cli.out(line);
    });
  examples(command, [["version --json", "for a script"]]);
}
