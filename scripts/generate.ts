/** Makes the code in clients/ts/src/gen from proto/. `npm run generate` */
import { generate, root } from "./lib/proto.ts";

generate(root);
