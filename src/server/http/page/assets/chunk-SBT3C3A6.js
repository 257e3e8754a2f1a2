import{xa as n}from"./chunk-ZRDPG2UV.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
