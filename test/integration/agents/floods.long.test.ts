import { floodTests } from "./floods.ts";

floodTests({ linesBytes: 2 ** 30, lineBytes: 2 ** 30, grownMiBMax: 256 });
