/** Writes src/store/pg/schema.dump.txt. `npm run dump-schema` */
import { writeFile } from "node:fs/promises";
import { dumpSchema, schemaDumpFile } from "./lib/schema-dump.ts";

await writeFile(schemaDumpFile, await dumpSchema());
