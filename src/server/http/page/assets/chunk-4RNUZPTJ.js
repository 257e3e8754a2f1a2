<<<<<<<< HEAD:src/server/http/page/assets/chunk-FOVAPDM7.js
import{c as o,s as t,ua as r}from"./chunk-P2QOIBAK.js";function l({text:e}){let n=t(void 0);return o(()=>{let i=!1;return import("./markdown-677RCGOQ.js").then(({htmlOf:u})=>{i||(n.value=u(e))}),()=>{i=!0}},[e]),n.value===void 0?r("pre",{class:"markdown",children:e}):r("div",{class:"markdown",dangerouslySetInnerHTML:{__html:n.value}})}export{l as a};
========
import{c as o,s as t,ya as r}from"./chunk-GPMPJ6HI.js";function l({text:e}){let n=t(void 0);return o(()=>{let i=!1;return import("./markdown-677RCGOQ.js").then(({htmlOf:u})=>{i||(n.value=u(e))}),()=>{i=!0}},[e]),n.value===void 0?r("pre",{class:"markdown",children:e}):r("div",{class:"markdown",dangerouslySetInnerHTML:{__html:n.value}})}export{l as a};
>>>>>>>> main:src/server/http/page/assets/chunk-4RNUZPTJ.js
