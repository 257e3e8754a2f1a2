import { floodTests } from "./floods.ts";

// A gigabyte takes long: floods.long.test.ts.
floodTests({ linesBytes: 16 * 2 ** 20, lineBytes: 100 * 2 ** 20, grownMiBMax: 200 });
