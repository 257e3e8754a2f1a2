import type { Command } from "commander";
import { type Cli, examples } from "../cli.ts";
import { optionsOf } from "../context.ts";
import { contextUrl, keptIn, readContexts, writeContexts } from "../contexts/file.ts";
import { plain, table } from "../print/table.ts";

/** `pinion context …`: the servers signed in to, and the current server. */
export function addContexts(program: Command, cli: Cli): void {
  const context = program
    .command("context")
    .description("the servers that you signed in to, and which is meant");
  const list = context
    .command("list")
    .alias("ls")
    .description("the contexts by name, and where the token of each is kept; the current one is marked")
    .action((_options, command: Command) => {
      const { current, contexts } = readContexts(cli.env);
      const rows = Object.entries(contexts)
        .map(([name, context]) => ({
          ...{ name, url: context.url, is_current: name === current, kept_in: keptIn(context) },
        }))
        .sort((one, other) => one.name.localeCompare(other.name));
      if (optionsOf(command).json) return cli.out(JSON.stringify({ contexts: rows }));
      if (rows.length === 0) return cli.note("no contexts yet; `pinion login URL` makes one");
      const columns = [
        { header: "", cell: (row: (typeof rows)[number]) => (row.is_current ? "*" : "") },
        { header: "NAME", cell: (row: (typeof rows)[number]) => plain(row.name), isFlexible: true },
        { header: "SERVER", cell: (row: (typeof rows)[number]) => row.url },
        { header: "TOKEN IN", cell: (row: (typeof rows)[number]) => row.kept_in },
      ];
      for (const line of table(rows, columns, cli.columns)) cli.out(line);
    });
  examples(list, [["context list", ""]]);
  const use = context
    .command("use")
    .argument("<context>", "its name")
    .description("commands ask this server from now on, in every directory without a Pinion of its own")
    .action((name: string, _options, command: Command) => {
      const url = contextUrl(cli.env, name)!;
      writeContexts(cli.env, { ...readContexts(cli.env), current: name });
      if (optionsOf(command).json) return cli.out(JSON.stringify({ name, url }));
      cli.out(`${plain(name)} is the current context: ${url}`);
    });
  examples(use, [["context use pinion.example.org", ""]]);
}
