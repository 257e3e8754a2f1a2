import { render } from "preact";
import { App } from "./app.tsx";
import { startClock } from "./data/clock.ts";
import { startRouter } from "./route.ts";

startClock();
startRouter();
render(<App />, document.body);
