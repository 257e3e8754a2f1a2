import type { Command } from "commander";
import type { MoveOptions, Progress } from "../../../store/moves/ends.ts";
import { type Cli, examples } from "../../cli.ts";
import { optionsOf } from "../../context.ts";
import { exitCodes, Failure } from "../../failures.ts";
import { requireUsableDatabase } from "../../up/usable-database.ts";

type Options = {
  to: string;
  databaseUrl?: string;
  toDatabaseUrl?: string;
  dryRun?: boolean;
  abort?: boolean;
  forget?: boolean;
};

/**
 * `pinion orgs move`: for the operator of both cells, who holds the URLs of their databases; no
 * token allows it.
 */
export function addMove(orgs: Command, cli: Cli): void {
  const command = orgs
    .command("move")
    .argument("<org-id>", "the org")
    .description(
      "move an org to another cell, while its devices are connected; works on both cells' databases, for the operator",
    )
    .requiredOption("--to <cell>", "the name of the cell to which the org moves")
    .option(
      "--database-url <url>",
      "the database of the cell that the org leaves, not through a pooler; default: DATABASE_DIRECT_URL or DATABASE_URL",
    )
    .option(
      "--to-database-url <url>",
      "the database of the cell to which the org moves; default: PINION_TO_DATABASE_URL",
    )
    .option("--dry-run", "check both databases and count the rows, and change nothing")
    .option("--abort", "give up a move that has not switched; the org stays where it was")
    .option(
      "--forget",
      "after the move: delete the old cell's copy; tokens with the old cell's name end there",
    )
    .action(async (orgId: string, _options, command: Command) => {
      const options = optionsOf<Options>(command);
      cli.outliveOutput();
      const move = await moveOf(cli, orgId, options);
      const { abortMove, forgetMoved, moveOrg, planMove } = await import("../../../store/moves/move.ts");
      const say = options.json
        ? (progress: Progress) => cli.out(JSON.stringify(progress))
        : (progress: Progress) => cli.note(lineOf(progress, options.to));
      if (options.dryRun) {
        const { tables } = await planMove(move);
        const rows = tables.reduce((sum, table) => sum + table.rows, 0);
        if (options.json) return cli.out(JSON.stringify({ org_id: orgId, cell: options.to, tables }));
        for (const table of tables) if (table.rows > 0) cli.out(`${table.table}  ${table.rows}`);
        return cli.out(`${rows} rows would move to the cell ${options.to}; nothing was changed`);
      }
      if (options.abort) return await abortMove({ ...move, onProgress: say });
      if (options.forget) return await forgetMoved({ ...move, onProgress: say });
      const { rows, tables, fencedMs } = await moveOrg({ ...move, onProgress: say });
      if (options.json) {
        const told = { org_id: orgId, cell: options.to, rows, tables, fenced_ms: fencedMs };
        return cli.out(JSON.stringify(told));
      }
      cli.out(
        `${orgId} is in the cell ${options.to}: ${rows} rows of ${tables} tables, ${(fencedMs / 1000).toFixed(1)} s without calls`,
      );
      cli.note(
        "devices follow by themselves; tokens of people and services, and addresses of hooks, need the new cell's name " +
          "(`--forget` ends the old one)",
      );
    });
  examples(command, [
    ["orgs move acme --to eu2 --dry-run", "DATABASE_URL and PINION_TO_DATABASE_URL name the two databases"],
    ["orgs move acme --to eu2", "run it again after an interruption: it goes on where it stands"],
  ]);
}

async function moveOf(cli: Cli, orgId: string, options: Options): Promise<MoveOptions> {
  const sourceUrl = options.databaseUrl ?? (cli.env.DATABASE_DIRECT_URL || cli.env.DATABASE_URL);
  const targetUrl = options.toDatabaseUrl ?? cli.env.PINION_TO_DATABASE_URL;
  if (!sourceUrl || !targetUrl) {
    throw new Failure(
      exitCodes.usage,
      "which databases?",
      "give --database-url and --to-database-url, or DATABASE_URL and PINION_TO_DATABASE_URL",
    );
  }
  for (const url of [sourceUrl, targetUrl]) await requireUsableDatabase(url);
  return { sourceUrl, targetUrl, orgId, cell: options.to };
}

/** What the person reads about a step. */
export function lineOf({ step, table, rows }: Progress, cell: string): string {
  if (step === "copying") return `copying ${table}: ${rows} rows so far`;
  if (table !== undefined) return `copied ${table}: ${rows} rows, the same here and there`;
  return {
    checked: "both databases fit",
    closing: "the org takes no more calls; its devices are asked to leave",
    drained: "no device is connected",
    fenced: "the org's rows are fenced",
    prepared: `the cell ${cell} is prepared`,
    copied: "every table is copied and compared",
    counted: "the numbers of new rows go on after the copied ones",
    switched: `the org belongs to the cell ${cell} now`,
    opened: `the cell ${cell} takes its calls`,
    aborted: "the move is given up; the org stays where it was",
    forgotten: "the old cell has forgotten the org",
  }[step];
}
