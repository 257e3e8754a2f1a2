import{Ga as n}from"./chunk-B4IWXYAO.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
