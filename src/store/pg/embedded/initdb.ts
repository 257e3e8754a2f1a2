import { randomBytes } from "node:crypto";
import { chown, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { Refusal } from "../../../errors.ts";
import { runCommand } from "./place.ts";
import { type Cluster, readTextOrUndefined } from "./postmaster.ts";

export const superuser = "pinion";
/** `initdb` takes a second of a processor; a machine with other work may take minutes. */
const initMsMax = 300_000;

/**
 * Creates the cluster beside its place and moves it there as a whole, so that an interrupted start
 * leaves no partial cluster.
 */
export async function createClusterOnce(cluster: Cluster): Promise<void> {
  const version = await readTextOrUndefined(join(cluster.place, "PG_VERSION"));
  if (version !== undefined) {
    await requireSameMajor(cluster, version.trim());
    return;
  }
  const parent = dirname(cluster.place);
  const prefix = `${basename(cluster.place)}.new-`;
  for (const name of await readdir(parent)) {
    if (name.startsWith(prefix)) await rm(join(parent, name), { recursive: true, force: true });
  }
  const draft = join(parent, `${prefix}${randomBytes(4).toString("hex")}`);
  const passwordFile = `${draft}.password`;
  try {
    await mkdir(draft, { mode: 0o700 });
    await writeDurably(passwordFile, `${cluster.password}\n`, 0o600);
    if (cluster.account) {
      await chown(draft, cluster.account.uid, cluster.account.gid);
      await chown(passwordFile, cluster.account.uid, cluster.account.gid);
    }
    const made = await runCommand(
      cluster.binaries.initdb,
      [
        `--pgdata=${draft}`,
        `--username=${superuser}`,
        `--pwfile=${passwordFile}`,
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        // A sort order independent of the machine's C library; a change of the library would
        // corrupt indexes of text.
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--locale=C",
        "--no-instructions",
      ],
      { account: cluster.account, timeoutMs: initMsMax },
    );
    if (made.code !== 0) {
      throw new Refusal(
        "failed_precondition",
        `The embedded PostgreSQL's database could not be made in ${cluster.place}:\n${made.output.trim()}\n` +
          "Mend that, or give Pinion a PostgreSQL of your own with DATABASE_URL.",
      );
    }
    // An empty directory is replaced; a non-empty directory makes the rename fail.
    await rename(draft, cluster.place);
    cluster.log?.info({ directory: cluster.place }, "made the embedded PostgreSQL's database");
  } finally {
    await rm(draft, { recursive: true, force: true });
    await rm(passwordFile, { force: true });
  }
}

async function requireSameMajor(cluster: Cluster, found: string): Promise<void> {
  // "postgres (PostgreSQL) 18.4"
  const { output } = await runCommand(cluster.binaries.postgres, ["--version"], { account: cluster.account });
  const brought = /\(PostgreSQL\) (\d+)/.exec(output)?.[1];
  if (brought === undefined || brought === found) return;
  throw new Refusal(
    "failed_precondition",
    `The data in ${cluster.place} was written by PostgreSQL ${found}, and this Pinion brings PostgreSQL ${brought}. ` +
      "Start the Pinion that wrote it and dump the database, or choose another data directory.",
  );
}

/** Replaces the file whole or not at all, also when the power fails. */
export async function writeDurably(file: string, text: string, mode: number): Promise<void> {
  const draft = `${file}.${randomBytes(4).toString("hex")}`;
  const handle = await open(draft, "wx", mode);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(draft, file);
}
