/**
 * The texts of the migrations. A bundle replaces the module by the texts (scripts/lib/bundle.ts).
 */
import { readdirSync, readFileSync } from "node:fs";

const directory = new URL("./migrations/", import.meta.url);

/** Their SQL by name (the file's without `.sql`). */
export function migrationFiles(): ReadonlyMap<string, string> {
  return new Map(
    readdirSync(directory)
      .filter((file) => file.endsWith(".sql"))
      .map((file) => [file.slice(0, -".sql".length), readFileSync(new URL(file, directory), "utf8")]),
  );
}
