/**
 * Makes the code in clients/ts/src/gen from proto/, and docs/configuration.md from the settings.
 * `npm run generate`
 */
import { writeFile } from "node:fs/promises";
import { configurationFile, configurationPage } from "./lib/configuration.ts";
import { generate, root } from "./lib/proto.ts";

generate(root);
await writeFile(configurationFile, configurationPage());
