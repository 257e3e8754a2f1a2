/**
 * A process that starts the embedded PostgreSQL in a directory, reports the result, and waits to be
 * killed.
 */
import { startEmbedded } from "../../src/store/pg/embedded/cluster.ts";

const [dataDir] = process.argv.slice(2);
try {
  const { url, pid, origin } = await startEmbedded({ dataDir: dataDir! });
  process.stdout.write(`${JSON.stringify({ url, pid, origin })}\n`);
  setInterval(() => {}, 60_000);
} catch (error) {
  process.stdout.write(`${JSON.stringify({ error: (error as Error).message })}\n`);
  process.exitCode = 1;
}
