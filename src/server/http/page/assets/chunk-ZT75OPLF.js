<<<<<<<< HEAD:src/server/http/page/assets/chunk-REBZVG75.js
import{c as o,s as t,za as r}from"./chunk-XVOBJS5S.js";function l({text:e}){let n=t(void 0);return o(()=>{let i=!1;return import("./markdown-677RCGOQ.js").then(({htmlOf:u})=>{i||(n.value=u(e))}),()=>{i=!0}},[e]),n.value===void 0?r("pre",{class:"markdown",children:e}):r("div",{class:"markdown",dangerouslySetInnerHTML:{__html:n.value}})}export{l as a};
========
import{Ba as r,c as o,s as t}from"./chunk-H4TQHIY3.js";function l({text:e}){let n=t(void 0);return o(()=>{let i=!1;return import("./markdown-677RCGOQ.js").then(({htmlOf:u})=>{i||(n.value=u(e))}),()=>{i=!0}},[e]),n.value===void 0?r("pre",{class:"markdown",children:e}):r("div",{class:"markdown",dangerouslySetInnerHTML:{__html:n.value}})}export{l as a};
>>>>>>>> main:src/server/http/page/assets/chunk-ZT75OPLF.js
