import type { Command } from "commander";
import { ListSecretsResponseSchema, type SecretState } from "#gen/pinion/v1/org_pb.js";
import { requireKeyring } from "../../../config.ts";
import { newKey } from "../../../secrets.ts";
import { createLogger } from "../../../telemetry/log.ts";
import { type Cli, examples } from "../../cli.ts";
import { connect, dataDir, optionsOf } from "../../context.ts";
import { exitCodes, Failure } from "../../failures.ts";
import { printList } from "../../print/lists.ts";
import { wholeNumber } from "../../print/paging.ts";
import { type Column, plain } from "../../print/table.ts";
import { formatAgo } from "../../print/times.ts";
import * as words from "../../print/words.ts";
import { keyFile, readKeys, writeKeys } from "../../secret-keys.ts";

/** `pinion secrets …`: the state of an org's secrets, and the keys under which secrets are kept. */
export function addSecrets(program: Command, cli: Cli): void {
  const secrets = program
    .command("secrets")
    .description("the secrets of the org without their values, and the keys under which they are kept");
  addList(secrets, cli);
  addRotate(secrets, cli);
}

function addList(secrets: Command, cli: Cli): void {
  const command = secrets
    .command("list")
    .alias("ls")
    .description("list the secrets on the server: names, versions, when set and used; never a value")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 100)
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<{ limit: number }>(cli, command);
      await printList(cli, options, {
        schema: ListSecretsResponseSchema,
        field: "secrets",
        read: (request) => clients.orgs.listSecrets(request),
        columns,
        notes: (secrets) =>
          secrets
            .filter(({ problem }) => problem !== "")
            .map(
              ({ name, holderName, problem }) => `${plain(name)} of ${plain(holderName)}: ${plain(problem)}`,
            ),
      });
    });
  examples(command, [["secrets list", "which secrets are there, and which cannot be used"]]);
}

const columns: Column<SecretState>[] = [
  { header: "NAME", cell: ({ name }) => plain(name) },
  {
    header: "OF",
    cell: ({ holder, holderName }) => `${words.secretHolder.word(holder)} ${plain(holderName)}`,
    isFlexible: true,
  },
  { header: "STATE", cell: ({ problem }) => (problem ? "unusable" : "usable") },
  { header: "VERSION", cell: ({ version }) => (version > 0 ? String(version) : "–") },
  { header: "SET", cell: ({ setAt }) => formatAgo(setAt) },
  { header: "USED", cell: ({ lastUsedAt }) => (lastUsedAt ? formatAgo(lastUsedAt) : "never") },
  { header: "KEY", cell: ({ reference, keyId }) => plain(reference || keyId) },
];

/**
 * With PINION_SECRET_KEYS: seals all secrets with the first key; servers with both keys may run.
 * With a key file: adds a new key at the front, seals all secrets with the new key and removes the
 * others; the directory's server is stopped meanwhile. Repeatable after an interruption.
 */
function addRotate(secrets: Command, cli: Cli): void {
  const command = secrets
    .command("rotate")
    .description("seal every secret of every org with the newest key")
    .option(
      "--database-url <url>",
      "the database (DATABASE_DIRECT_URL, DATABASE_URL); without one the data directory's own",
    )
    .action(async (_options, command: Command) => {
      const options = optionsOf<{ databaseUrl?: string }>(command);
      const data = dataDir(options, cli.env);
      const url = options.databaseUrl ?? (cli.env.DATABASE_DIRECT_URL || cli.env.DATABASE_URL || undefined);
      const { keys, isFile } = keysToUse(cli, data, url);
      const { rotated, failed } = await withDatabase(data, url, cli, async (databaseUrl) => {
        if (isFile) writeKeys(data, keys);
        return rotate(databaseUrl, keys.join(","));
      });
      const [current = ""] = (keys[0] ?? "").split(":");
      if (options.json) cli.out(JSON.stringify({ key_id: current, rotated, failed }, null, 2));
      else
        cli.out(
          `${rotated} ${rotated === 1 ? "secret is" : "secrets are"} sealed anew with the key ${current}`,
        );
      if (failed.length > 0) {
        throw new Failure(
          exitCodes.failed,
          `${failed.length} could not be opened and stay as they are: ${failed
            .slice(0, 10)
            .map(({ orgId, stableId, field }) => `${orgId}/${stableId}/${field}`)
            .join(", ")}`,
          "their key is missing: put it behind the others in PINION_SECRET_KEYS, or set these secrets again",
        );
      }
      if (isFile) writeKeys(data, keys.slice(0, 1));
      else if (keys.length > 1) {
        cli.note("once every server has the first key, the others can be taken out of PINION_SECRET_KEYS");
      }
    });
  examples(command, [
    ["secrets rotate", "a new key for the embedded database; stop `up` or `serve` first"],
    ["secrets rotate --database-url postgres://db/pinion", "with PINION_SECRET_KEYS=new:…,old:…"],
  ]);
}

/** The keys, starting with the sealing key. */
function keysToUse(cli: Cli, data: string, url: string | undefined): { keys: string[]; isFile: boolean } {
  const given = cli.env.PINION_SECRET_KEYS || (url === undefined ? undefined : readKeys(data));
  if (given) {
    requireKeyring(given);
    return { keys: split(given), isFile: false };
  }
  const stored = url === undefined ? readKeys(data) : undefined;
  if (!stored) {
    throw new Failure(
      exitCodes.usage,
      `there are no keys: neither PINION_SECRET_KEYS nor ${keyFile(data)}`,
      "set PINION_SECRET_KEYS=new:…,old:… as the servers have it",
    );
  }
  requireKeyring(stored);
  const keys = split(stored);
  // More than one key: an earlier rotation was interrupted, and its new key is the first.
  return { keys: keys.length > 1 ? keys : [newKey(), ...keys], isFile: true };
}

function split(keys: string): string[] {
  return keys
    .split(/[,\n]/)
    .map((key) => key.trim())
    .filter((key) => key !== "");
}

async function withDatabase<T>(
  data: string,
  url: string | undefined,
  cli: Cli,
  fn: (url: string) => Promise<T>,
): Promise<T> {
  if (url !== undefined) return fn(url);
  const { startEmbedded } = await import("../../../store/pg/embedded/cluster.ts");
  const log = createLogger({ level: cli.env.PINION_LOG_LEVEL || "warn", name: "pinion secrets" });
  const embedded = await startEmbedded({ dataDir: data, log });
  try {
    return await fn(embedded.url);
  } finally {
    await embedded.stop();
  }
}

async function rotate(url: string, keys: string) {
  const [{ openDatabase }, platforms, destinations, hooks] = await Promise.all([
    import("../../../store/pg/database.ts"),
    import("../../../store/agents/platform-secrets.ts"),
    import("../../../store/work/messages/destinations.ts"),
    import("../../../store/work/watchers/hooks.ts"),
  ]);
  const database = openDatabase({ url, poolMax: 1, applicationName: "pinion secrets" });
  try {
    const keyring = requireKeyring(keys);
    const all = [
      await platforms.rotateSecrets(database.db, keyring),
      await destinations.rotateSecrets(database.db, keyring),
      await hooks.rotateSecrets(database.db, keyring),
    ];
    return {
      rotated: all.reduce((sum, { rotated }) => sum + rotated, 0),
      failed: all.flatMap(({ failed }) => failed),
    };
  } finally {
    await database.close();
  }
}
