<<<<<<<< HEAD:src/server/http/page/assets/chunk-REFOGHKD.js
import{c as o,s as t,xa as r}from"./chunk-3IEAOCSV.js";function l({text:e}){let n=t(void 0);return o(()=>{let i=!1;return import("./markdown-677RCGOQ.js").then(({htmlOf:u})=>{i||(n.value=u(e))}),()=>{i=!0}},[e]),n.value===void 0?r("pre",{class:"markdown",children:e}):r("div",{class:"markdown",dangerouslySetInnerHTML:{__html:n.value}})}export{l as a};
========
import{c as o,s as t,ua as r}from"./chunk-SFSSQGDM.js";function l({text:e}){let n=t(void 0);return o(()=>{let i=!1;return import("./markdown-677RCGOQ.js").then(({htmlOf:u})=>{i||(n.value=u(e))}),()=>{i=!0}},[e]),n.value===void 0?r("pre",{class:"markdown",children:e}):r("div",{class:"markdown",dangerouslySetInnerHTML:{__html:n.value}})}export{l as a};
>>>>>>>> main:src/server/http/page/assets/chunk-5M7K7BGI.js
