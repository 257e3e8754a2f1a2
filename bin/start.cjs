"use strict";
// Apart from pinion.cjs, since an import that is a call is no syntax for Nodes before 12.
module.exports = (main) => import(require("node:url").pathToFileURL(main).href);
