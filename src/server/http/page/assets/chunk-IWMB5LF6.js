<<<<<<<< HEAD:src/server/http/page/assets/chunk-HQDTBKYI.js
import{Ba as r,c as o,s as t}from"./chunk-UJG2BT6P.js";function l({text:e}){let n=t(void 0);return o(()=>{let i=!1;return import("./markdown-677RCGOQ.js").then(({htmlOf:u})=>{i||(n.value=u(e))}),()=>{i=!0}},[e]),n.value===void 0?r("pre",{class:"markdown",children:e}):r("div",{class:"markdown",dangerouslySetInnerHTML:{__html:n.value}})}export{l as a};
========
import{Ga as r,c as o,s as t}from"./chunk-MLEEEFI6.js";function l({text:e}){let n=t(void 0);return o(()=>{let i=!1;return import("./markdown-677RCGOQ.js").then(({htmlOf:u})=>{i||(n.value=u(e))}),()=>{i=!0}},[e]),n.value===void 0?r("pre",{class:"markdown",children:e}):r("div",{class:"markdown",dangerouslySetInnerHTML:{__html:n.value}})}export{l as a};
>>>>>>>> main:src/server/http/page/assets/chunk-IWMB5LF6.js
