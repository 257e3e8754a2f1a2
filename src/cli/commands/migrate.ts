import type { Command } from "commander";
import { createLogger } from "../../telemetry/log.ts";
import { type Cli, examples } from "../cli.ts";
import { optionsOf } from "../context.ts";
import { exitCodes, Failure } from "../failures.ts";
import { requireUsableDatabase } from "../up/usable-database.ts";

/** `pinion migrate`: brings a database to this version's schema. */
export function addMigrate(program: Command, cli: Cli): void {
  const command = program
    .command("migrate")
    .description("bring a database to this version's schema; `up` and `serve` do so by themselves")
    .option(
      "--database-url <url>",
      "the database, not through a pooler; default: DATABASE_DIRECT_URL or DATABASE_URL",
    )
    .action(async (_options, command: Command) => {
      const options = optionsOf<{ databaseUrl?: string }>(command);
      const url = options.databaseUrl ?? (cli.env.DATABASE_DIRECT_URL || cli.env.DATABASE_URL);
      if (!url) throw new Failure(exitCodes.usage, "which database?", "give --database-url or DATABASE_URL");
      await requireUsableDatabase(url);
      const { listMigrations, migrate } = await import("../../store/pg/migrate.ts");
      const log = createLogger({ level: cli.env.PINION_LOG_LEVEL || "warn", name: "pinion migrate" });
      const { applied } = await migrate(url, log);
      const known = await listMigrations();
      if (options.json) return cli.out(JSON.stringify({ applied, known }, null, 2));
      if (applied.length === 0) return cli.out(`nothing to do: all ${known.length} migrations are applied`);
      for (const name of applied) cli.out(`applied ${name}`);
    });
  examples(command, [
    ["migrate --database-url postgres://localhost/pinion", "safe while others do the same"],
  ]);
}
